#!/bin/sh
exec "$PYTHON" trains.py "$@"
