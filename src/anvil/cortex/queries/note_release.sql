INSERT INTO released (path, sha256, size, keys, blobs, images, at)
VALUES (:path, :sha256, :size, :keys, :blobs, :images, :now)
ON CONFLICT (path) DO UPDATE SET
    sha256 = excluded.sha256, size = excluded.size, keys = excluded.keys, blobs = excluded.blobs,
    images = excluded.images, at = excluded.at
