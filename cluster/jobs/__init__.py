"""Entry points for `ray job submit --working-dir . -- python -m cluster.jobs.train …`.

A job is a command that first makes sure, in seconds, of all that it will need. Its progress is in the job's log, its
exit status is the job's: 0 done, 1 failed for a reason that the last lines say, 2 wrong options, 128 + n stopped by
signal n. Submitted again it goes on where it was.
"""
