"""The newest reading of each sensor, whoever has written it: here, or on another device from which it was synced.

    python3 dashboard.py plant.db
"""

import sys

from gattway import Database

if len(sys.argv) != 2:
    sys.exit(__doc__)
readings = Database(sys.argv[1]).collection("readings", create=True)
newest = {}
for change in readings.changes(follow=True):
    reading = change.document
    if reading is None or "sensor" not in reading:
        continue
    sensor, time = str(reading["sensor"]), str(reading.get("time", ""))
    # By the time of the reading, not of its arrival.
    if time >= newest.get(sensor, ""):
        newest[sensor] = time
        print(f"{sensor:<20} {reading.get('celsius', '-'):>8}  {newest[sensor]}", flush=True)
