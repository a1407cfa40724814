SELECT path, sha256, size, keys, blobs, images FROM released WHERE path = :path
