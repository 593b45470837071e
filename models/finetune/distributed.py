"""The same fine-tuning on several GPUs, by Ray Train: one process a GPU, gradients averaged over them."""

from typing import Any

from models.finetune.config import FinetuneConfig, FinetuneResult
from models.finetune.train import finetune


def finetune_on_gpus(config: FinetuneConfig, gpus: int) -> FinetuneResult:
    """Run `config` on `gpus` GPUs of the connected Ray cluster; with one or none, in this process.

    Each process sees its own random batches, so the batch grows by the number of GPUs. The first writes the files;
    `config.out` must be a folder that this machine sees too.
    """
    if gpus <= 1:
        return finetune(config)
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _one_process,
        train_loop_config={"config": config.model_dump_json()},
        scaling_config=ScalingConfig(num_workers=gpus, use_gpu=True),
    )
    trainer.fit()
    return FinetuneResult.model_validate_json((config.out / "result.json").read_text())


def _one_process(told: dict[str, Any]) -> None:
    import ray.train
    import torch.distributed
    from torch import nn

    context = ray.train.get_context()
    config = FinetuneConfig.model_validate_json(told["config"])
    rank = context.get_world_rank()
    own = config.model_copy(
        update={"seed": config.seed + rank, "device": f"cuda:{context.get_local_rank()}"}
        | ({} if rank == 0 else {"out": config.out / f"rank{rank}", "sample_every": 0})
    )

    def averaged(denoiser: nn.Module) -> nn.Module:
        # Hooks rather than a wrapper: the pipeline calls the denoiser by its own class.
        for parameter in denoiser.parameters():
            torch.distributed.broadcast(parameter.data, src=0)
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_average)
        return denoiser

    result = finetune(own, wrap=averaged)
    if rank == 0:
        (config.out / "result.json").write_text(result.model_dump_json())


def _average(parameter: Any) -> None:
    import torch.distributed

    torch.distributed.all_reduce(parameter.grad, op=torch.distributed.ReduceOp.AVG)
