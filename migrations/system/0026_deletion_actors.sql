-- Who deleted an object, as the webhook heard it from the API server before the object was marked as deleted: by the object's
-- uid. The row is used when the deletion is recorded, and removed then or when it is old. A request that was refused after it,
-- or whose deletion was not this operator's, leaves a row that nothing uses: it counts only near the time of the deletion.

CREATE TABLE deletion_actors (
    object_uid text        PRIMARY KEY CHECK (octet_length(object_uid) BETWEEN 1 AND 64),
    actor      text        NOT NULL CHECK (actor <> '' AND length(actor) <= 4000),
    at         timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX deletion_actors_by_time ON deletion_actors (at);
