"""A sensor that writes a reading each second, and shows its last ones.

    gattway --db plant.db serve --listen ble &
    python3 sensor.py plant.db --sensor boiler
"""

import argparse
import datetime
import random
import time

from gattway import Database

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("database", help="the database's directory")
parser.add_argument("--sensor", default="boiler")
parser.add_argument("--every", type=float, default=1, metavar="SECONDS")
parser.add_argument("--count", type=int, help="readings to write; without it, until it is told to end")
options = parser.parse_args()

readings = Database(options.database).collection("readings", create=True)
readings.create_index("sensor", "time")
written = 0
while options.count is None or written < options.count:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    celsius = round(random.gauss(71, 2), 1)
    readings[f"{options.sensor}:{now}"] = {"sensor": options.sensor, "time": now, "celsius": celsius}
    last = readings.query({"sensor": options.sensor}, sort=[{"time": "desc"}], limit=20, fields=["celsius"])
    print(now, *(row.get("celsius", "-") for row in last), flush=True)
    written += 1
    time.sleep(options.every)
