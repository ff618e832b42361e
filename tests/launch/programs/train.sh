#!/bin/sh
# One of the usual wrappers.
set -e
"$PYTHON" trains.py "$@"
echo done
