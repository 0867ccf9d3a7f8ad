#!/bin/sh
# Readings in a gattway database, from a shell: writes some, then asks for the last ones and for the mean of each hour.
#
#   gattway --db plant.db serve --listen ble &
#   sh readings.sh plant.db boiler 71.5 71.8
set -eu
[ $# -ge 2 ] || { echo "sh readings.sh DATABASE SENSOR [CELSIUS...]" >&2; exit 2; }
directory=$1 sensor=$2
shift 2

# ask METHOD PATH [JSON]: asks the process that has the database open, and fails with what it says is wrong. From within the directory, since
# the path of a socket has 107 bytes at most.
ask() (
    cd "$directory"
    method=$1 path=$2
    shift 2
    [ $# -eq 0 ] || set -- --header 'Content-Type: application/json' --data-binary "$1"
    exec curl --silent --show-error --fail-with-body --unix-socket http --request "$method" "$@" "http://localhost/_db.readings$path"
)

# A collection that is there is left as it is.
ask GET '/_all_docs?limit=0' >/dev/null 2>&1 || ask PUT '' >/dev/null
for celsius; do
    time=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
    ask PUT "/$sensor:$time" "{\"sensor\": \"$sensor\", \"time\": \"$time\", \"celsius\": $celsius}"
    echo
done
ask POST /_query "{\"selector\": {\"sensor\": \"$sensor\"}, \"sort\": [{\"time\": \"desc\"}], \"limit\": 20, \"fields\": [\"time\", \"celsius\"]}"
echo
ask POST /_query "{\"selector\": {\"sensor\": \"$sensor\"}, \"group\": [{\"time\": \"1h\"}], \"aggregate\": {\"mean\": {\"avg\": \"celsius\"}}}"
echo
