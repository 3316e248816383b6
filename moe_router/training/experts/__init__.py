"""The experts' adapters: data, training, calibration, judging."""
