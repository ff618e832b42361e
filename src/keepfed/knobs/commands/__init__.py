"""Settings on command lines: of shells, of Makefiles and Dockerfiles, of batch jobs."""
