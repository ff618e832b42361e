#!/bin/sh
# The folder of the sources, so that imports work.
export PYTHONPATH=src
"$PYTHON" trains.py
