SELECT component, number, digest FROM migrations
