#!/bin/bash
# Writes random ranges to a LUN by qemu-io, and the same bytes to a reference file, until a file called STOP appears. Every few writes
# are a session of their own, which ends with a flush; one that fails, or hangs because its connection was lost, is ended and the same
# writes are done again in the next. Only then are they counted in the file PROGRESS.
#
#   endless-sessions.sh IMAGE-OPTIONS REFERENCE SIZE PROGRESS STOP
set -u

image=$1 reference=$2 blocks=$(($3 / 512)) progress=$4 stop=$5
writes_per_session=8
longest=128 # blocks
session_limit=15 # seconds
most_failures=30

random() { echo $(((RANDOM << 15 | RANDOM) % $1)); }

commands() {
  for ((count = 0; count < writes_per_session; count++)); do
    local length=$((1 + $(random $longest)))
    echo "write -P $((1 + $(random 255))) $((512 * $(random $((blocks - length))))) $((512 * length))"
  done
  echo flush
}

session() {
  local output
  # qemu-io says that a command has failed, and goes on.
  output=$(timeout -s KILL $session_limit qemu-io --image-opts "$image" <<<"$1" 2>&1) &&
    [ "$(grep -c 'wrote [0-9]' <<<"$output")" -eq $writes_per_session ] && return
  tail -n 5 <<<"$output"
  return 1
}

written=0
until [ -e "$stop" ]; do
  batch=$(commands)
  failures=0
  until session "$batch"; do
    [ $((++failures)) -lt $most_failures ] || { echo "no session in $failures attempts"; exit 1; }
    sleep 0.5
  done
  qemu-io -f raw "$reference" <<<"$batch" >/dev/null || exit 1
  written=$((written + writes_per_session))
  echo $written >"$progress.new"
  mv "$progress.new" "$progress"
done
