"""Which keys of Spark's configuration a holder may set, unless a profile says otherwise.

Exact keys, each one that tunes a query and can't name a class, a path, a command, a host or a credential. Never
``spark.sql.*`` wholesale: ``spark.sql.extensions`` loads code, ``spark.sql.catalog.*`` names credentials, and
``spark.sql.warehouse.dir`` writes where the driver may. The list keeps honest users right; whoever can run code in a
driver is that driver.
"""

from typing import Final

DEFAULT_ALLOWED_CONF: Final = (
    "spark.app.name",
    "spark.default.parallelism",
    "spark.sql.adaptive.advisoryPartitionSizeInBytes",
    "spark.sql.adaptive.coalescePartitions.enabled",
    "spark.sql.adaptive.coalescePartitions.initialPartitionNum",
    "spark.sql.adaptive.coalescePartitions.minPartitionSize",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst",
    "spark.sql.adaptive.enabled",
    "spark.sql.adaptive.localShuffleReader.enabled",
    "spark.sql.adaptive.maxShuffledHashJoinLocalMapThreshold",
    "spark.sql.adaptive.skewJoin.enabled",
    "spark.sql.adaptive.skewJoin.skewedPartitionFactor",
    "spark.sql.adaptive.skewJoin.skewedPartitionThresholdInBytes",
    "spark.sql.ansi.enabled",
    "spark.sql.autoBroadcastJoinThreshold",
    "spark.sql.broadcastTimeout",
    "spark.sql.caseSensitive",
    "spark.sql.cbo.enabled",
    "spark.sql.cbo.joinReorder.enabled",
    "spark.sql.codegen.wholeStage",
    "spark.sql.crossJoin.enabled",
    "spark.sql.csv.parser.columnPruning.enabled",
    "spark.sql.datetime.java8API.enabled",
    "spark.sql.execution.arrow.maxRecordsPerBatch",
    "spark.sql.execution.arrow.pyspark.enabled",
    "spark.sql.execution.arrow.pyspark.fallback.enabled",
    "spark.sql.execution.arrow.pyspark.selfDestruct.enabled",
    "spark.sql.execution.pythonUDF.arrow.enabled",
    "spark.sql.files.ignoreCorruptFiles",
    "spark.sql.files.ignoreMissingFiles",
    "spark.sql.files.maxPartitionBytes",
    "spark.sql.files.maxRecordsPerFile",
    "spark.sql.files.minPartitionNum",
    "spark.sql.files.openCostInBytes",
    "spark.sql.inMemoryColumnarStorage.batchSize",
    "spark.sql.inMemoryColumnarStorage.compressed",
    "spark.sql.join.preferSortMergeJoin",
    "spark.sql.legacy.timeParserPolicy",
    "spark.sql.mapKeyDedupPolicy",
    "spark.sql.optimizer.dynamicPartitionPruning.enabled",
    "spark.sql.orc.compression.codec",
    "spark.sql.orc.filterPushdown",
    "spark.sql.parquet.compression.codec",
    "spark.sql.parquet.datetimeRebaseModeInRead",
    "spark.sql.parquet.datetimeRebaseModeInWrite",
    "spark.sql.parquet.enableVectorizedReader",
    "spark.sql.parquet.filterPushdown",
    "spark.sql.parquet.int96RebaseModeInRead",
    "spark.sql.parquet.int96RebaseModeInWrite",
    "spark.sql.parquet.mergeSchema",
    "spark.sql.parquet.outputTimestampType",
    "spark.sql.pivotMaxValues",
    "spark.sql.pyspark.inferNestedDictAsStruct.enabled",
    "spark.sql.repl.eagerEval.enabled",
    "spark.sql.repl.eagerEval.maxNumRows",
    "spark.sql.repl.eagerEval.truncate",
    "spark.sql.session.timeZone",
    "spark.sql.shuffle.partitions",
    "spark.sql.sources.bucketing.enabled",
    "spark.sql.sources.partitionColumnTypeInference.enabled",
    "spark.sql.sources.partitionOverwriteMode",
    "spark.sql.statistics.histogram.enabled",
    "spark.sql.storeAssignmentPolicy",
    "spark.sql.timestampType",
    "spark.speculation",
)

OWNED_CONF: Final = {
    "spark.master": "set the profile's master",
    "spark.remote": "the broker sets it",
    "spark.app.id": "the broker sets it",
    "spark.submit.deployMode": "the broker sets it",
    "spark.driver.cores": "set the profile's driver.cores",
    "spark.driver.memory": "set the profile's driver.memory",
    "spark.driver.memoryOverhead": "set the profile's driver.memory_overhead",
    "spark.driver.host": "the broker sets it",
    "spark.driver.bindAddress": "the broker sets it",
    "spark.executor.cores": "set the profile's executors.cores",
    "spark.executor.instances": "set the profile's executors.max_count",
    "spark.executor.memory": "set the profile's executors.memory",
    "spark.executor.memoryOverhead": "set the profile's executors.memory_overhead",
    "spark.connect.authenticate.token": "the broker sets it",
    "spark.connect.grpc.binding.address": "the broker sets it",
    "spark.connect.grpc.binding.port": "the broker sets it",
    "spark.ui.enabled": "set the profile's ui",
}
"""Keys that the broker sets from somewhere else, and from where."""


def too_wide(pattern: str) -> bool:
    """Whether an entry of an allow-list lets through whole families, code loading and credentials among them."""
    return pattern in {"*", "spark*", "spark.*", "spark.sql*", "spark.sql.*"} or (
        pattern.endswith("*") and any(key.startswith(pattern[:-1]) for key in OWNED_CONF)
    )
