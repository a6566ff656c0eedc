#!/bin/sh
# Prints the latest state of a case, read from the topic casewire.case-state to its present end.
#
#     ./latest-state.sh 127.0.0.1:9092 my-project/79e25a30-8db5-4a5a-827b-0297b254e87f
#
# It needs kcat (Debian: apt-get install kcat) and awk. Fields are parted by a character (unit
# separator) that neither HTTP headers nor JSON can hold. A state's first header is casewire-version.
set -eu
if [ $# -lt 2 ]; then
  echo "usage: latest-state.sh SERVERS PROJECT/CASE_ID [TOPIC]" >&2
  exit 2
fi

kcat -C -q -e -o beginning -b "$1" -t "${3:-casewire.case-state}" -f '%k\x1f%h\x1f%s\n' |
  awk -F '\037' -v key="$2" '
    $1 != key { next }
    { # a case that has been gone for 30 days is null: an empty third field
      sub(/^casewire-version=/, "", $2)
      version = $2 + 0
      if (version >= newest) { newest = version; state = $3 }
    }
    END {
      if (state == "") { print "there is no state of " key > "/dev/stderr"; exit 1 }
      print state
    }'
