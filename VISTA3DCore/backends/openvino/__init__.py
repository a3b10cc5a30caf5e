"""The network on processors through OpenVINO."""
