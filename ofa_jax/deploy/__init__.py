"""From a subnet to the files that devices run, and what they cost there."""
