-- As before, and nothing is done for a card that no other needs: the list of those that do is a table aside.
DROP TRIGGER need_punched;

CREATE TRIGGER need_punched AFTER UPDATE OF stat ON card_stack
WHEN NEW.stat = 2 AND EXISTS (SELECT 1 FROM need WHERE needs = NEW.seq)
BEGIN
    UPDATE card_stack SET waiting = waiting - 1
    WHERE seq IN (SELECT card FROM need WHERE needs = NEW.seq);
END;
