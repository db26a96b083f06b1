"""All studies as one graph of files: `pfcalib report`, or `snakemake -c 2 -C studies="01 02"`.

A study is the unit: samples, tables and trained networks are made inside of it, in the cache whose
names hold the content that went in, so that studies share them whichever comes first, and an
interrupted training goes on where it stopped. The target of a study is the file `passed-DIGEST`
in the folder of its results; it comes with the complete folder, and only if the run passed with
the code, parameters, packaged data and locked packages that DIGEST stands for.

To configure (-C): `studies` (core, all, or names and numbers), `profile` (smoke, standard, full),
or `sweep`, the file of a grid.
"""

from pfcalib.reporting.workflow import plan_jobs

JOBS = plan_jobs(config)


rule all:
    localrule: True
    input:
        [job.target for job in JOBS],


for job in JOBS:

    rule:
        name:
            job.name
        input:
            # which come first; whether a study is up to date, only its own digest tells
            [ancient(target) for target in job.after],
        output:
            job.target,
            job.results,
            [directory(folder) for folder in job.folders],
        log:
            job.log,
        threads: job.threads
        resources:
            mem_mb=job.mem_mb,
            runtime=job.minutes,
        params:
            command=job.command,
        shell:
            "{params.command} > {log} 2>&1"
