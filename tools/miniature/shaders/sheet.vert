in vec3 position, direction, along;
in vec2 across;             // x around the head 0..1, y from the crown 0 to the tips 1
out vec3 place, normal, strand_direction;
out vec2 strand;
out vec4 lit;

uniform mat4 camera, light_camera;
uniform float lift;         // how far this layer stands off the sheet, face units

void main() {
    place = position + direction * lift; normal = direction; strand_direction = along; strand = across;
    lit = light_camera * vec4(place, 1);
    gl_Position = camera * vec4(place, 1);
}
