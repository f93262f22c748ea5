-- Runs on the worker's lease; {{ run_id }} is rendered by Airflow, :least is bound by Spark.
CREATE OR REPLACE TEMPORARY VIEW good AS
SELECT * FROM parquet.`{{ params.folder }}`;

SELECT score, count(*) AS films
FROM good
WHERE score >= CAST(:least AS INT)
GROUP BY score
ORDER BY score DESC;
