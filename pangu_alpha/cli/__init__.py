"""The command line `pangu-alpha <job>`: one file a job, thin: arguments in, a call, a table out."""
