"""A program without any code for Airflow or leases."""

import argparse
import os

from cleaning import clean
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

parser = argparse.ArgumentParser()
parser.add_argument("--least", type=int, default=1)
parser.add_argument("day")
options = parser.parse_args()

spark = SparkSession.builder.appName("words").getOrCreate()
words = spark.createDataFrame([(clean(word),) for word in os.environ["TEXT"].split()], "word string")
found = words.groupBy("word").count().where(F.col("count") >= options.least).orderBy("word").collect()
print(f"{options.day}: {', '.join(f'{row[0]} {row[1]}' for row in found)}")
spark.stop()
