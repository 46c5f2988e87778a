"""syncd: gets names and metadata onto WorkflowRuns, durably, in order, under the limit."""

__version__ = "0.1.0"
