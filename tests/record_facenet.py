"""Record what facenet-pytorch computes, for our own FaceNet to be compared with. Its package cannot live beside ours:

    python -m venv /tmp/facenet && /tmp/facenet/bin/pip install torch torchvision numpy pillow requests
    /tmp/facenet/bin/pip install --no-deps facenet-pytorch && /tmp/facenet/bin/python tests/record_facenet.py

Weights and faces are drawn by tests/facenet_weights.py. The last face is cut out of a larger picture and squashed by
facenet-pytorch's own `extract_face`; its box lies between pixels.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import InceptionResnetV1, extract_face, fixed_image_standardization
from facenet_weights import BOX, made_up, made_up_faces, made_up_picture
from PIL import Image

OUT = Path(__file__).parent / "data" / "facenet_pytorch.npz"

if __name__ == "__main__":
    model = InceptionResnetV1().eval()
    model.load_state_dict(made_up({name: tensor.shape for name, tensor in model.state_dict().items()}))
    drawn = torch.from_numpy(made_up_faces(3)).permute(0, 3, 1, 2).float()
    cut = extract_face(Image.fromarray(made_up_picture()), np.array(BOX))
    with torch.inference_mode():
        outputs = model(fixed_image_standardization(torch.cat([drawn, cut[None]])))
    np.savez_compressed(
        OUT,
        source=f"facenet-pytorch {version('facenet-pytorch')}, torch {torch.__version__}",
        names=sorted(model.state_dict()),
        embeddings=outputs.numpy(),
    )
    print(f"wrote {OUT}, {OUT.stat().st_size} bytes")
