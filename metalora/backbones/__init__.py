"""The frozen base models: loading, prompts, sampling, LoRA file formats, speed."""

own_process = False  # set by the command line: nothing in this process but ours imports diffusers
