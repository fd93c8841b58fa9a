"""What thousands of devices will do, examined on one machine without an accelerator."""
