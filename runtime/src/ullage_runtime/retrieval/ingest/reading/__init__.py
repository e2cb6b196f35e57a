"""From files to texts: what may blow up is read by a process that may be killed."""
