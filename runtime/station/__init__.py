"""The ground station: what devices report to, and operators ask."""
