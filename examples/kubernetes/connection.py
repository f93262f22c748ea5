"""Prints Airflow's connection to a broker as JSON: python3 connection.py URL TOKEN_FILE CERTIFICATE_FILE"""

import json
import sys
from pathlib import Path

url, token, certificate = sys.argv[1:]
print(json.dumps({
    "conn_type": "sparkbroker",
    "password": Path(token).read_text().strip(),
    "extra": {"url": url, "ca_certificate": Path(certificate).read_text()},
}))  # fmt: skip
