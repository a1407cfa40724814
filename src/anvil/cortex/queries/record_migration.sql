INSERT INTO migrations (component, number, name, digest, applied)
VALUES (:component, :number, :name, :digest, :applied)
