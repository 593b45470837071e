"""How models are made and measured: the embedded model's training, fine-tuning, tiny random pipelines, metrics."""
