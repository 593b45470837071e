"""The same fine-tuning in several processes, by Ray Train: gradients are averaged over them."""

import shutil
from typing import Any

from training.finetune.config import FinetuneConfig, FinetuneResult
from training.finetune.train import finetune, follow


def finetune_on_workers(config: FinetuneConfig, workers: int, *, use_gpu: bool = True) -> FinetuneResult:
    """Run `config` in that many processes of the connected Ray cluster, one GPU each; one runs in this process.

    Each process sees its own random batches, so the batch grows by the number of processes. The first writes the files;
    `config.out` must be a folder that all of them see.
    """
    if workers <= 1:
        return finetune(config)
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    config.out.mkdir(parents=True, exist_ok=True)
    scratch = config.out.resolve() / "ray"  # without a place of its own, Ray writes into the home folder
    trainer = TorchTrainer(
        _one_process,
        train_loop_config={"config": config.model_dump_json(), "use_gpu": use_gpu},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(name="finetune", storage_path=str(scratch)),
    )
    try:
        trainer.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return FinetuneResult.model_validate_json((config.out / "result.json").read_text())


def _one_process(told: dict[str, Any]) -> None:
    import ray.train
    import torch.distributed
    from torch import nn

    context = ray.train.get_context()
    rank = context.get_world_rank()
    device = f"cuda:{context.get_local_rank()}" if told["use_gpu"] else "cpu"
    config = FinetuneConfig.model_validate_json(told["config"]).model_copy(update={"device": device})
    processes = context.get_world_size()

    def average(parameter: Any) -> None:
        torch.distributed.all_reduce(parameter.grad)  # a sum: not every backend can average
        parameter.grad /= processes

    def averaged(denoiser: nn.Module) -> nn.Module:
        # Hooks rather than a wrapper: the pipeline calls the denoiser by its own class.
        for parameter in denoiser.parameters():
            torch.distributed.broadcast(parameter.data, src=0)
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(average)
        return denoiser

    if rank > 0:
        follow(config, rank, averaged)
    else:
        (config.out / "result.json").write_text(finetune(config, wrap=averaged).model_dump_json())
