"""The decorators that Airflow offers as ``@task.…``."""
