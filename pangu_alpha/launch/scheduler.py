"""The process through which workers find each other, as msrun would start it."""

from __future__ import annotations


def main() -> None:
    """Wait until all workers have come and gone; MS_ROLE, MS_SCHED_HOST … say for whom."""
    import mindspore as ms
    from mindspore import communication

    ms.set_context(device_target="CPU")  # it computes nothing
    communication.init()


if __name__ == "__main__":
    main()
