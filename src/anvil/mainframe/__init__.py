"""The mainframe: recipes become cards, cards run in cells, results are kept by what they were made from."""
