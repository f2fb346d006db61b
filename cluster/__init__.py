"""Where the parts are put together: the command line, configurations, jobs and benchmarks."""
