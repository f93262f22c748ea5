"""A program from before Spark Connect."""

from operator import add

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
total = spark.sparkContext.parallelize(range(100)).map(lambda number: number * number).reduce(add)
print(f"the sum of the squares is {total}, computed on {spark.sparkContext.master}")
spark.stop()
