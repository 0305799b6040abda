in vec3 position, direction, average;
in vec2 uv;
in float part;
out vec3 place, normal, on_face;
out vec2 texel;
out vec4 lit;
flat out float part_of;

uniform mat4 camera, light_camera;
uniform float offset;       // 0: the skin; up to 1: the outermost shell of hair
uniform float volume, crown, droop;

void main() {
    vec3 p = position;
    if (offset > 0.) {
        float reach = offset * volume * (1. + crown * smoothstep(.6, 1.6, average.y));
        p += direction * reach - vec3(0, droop * reach, 0);
    } else if (part < .5) p += direction * (garment == 2 ? .07 : .045) * covered(average);
    place = p; normal = direction; on_face = average; texel = uv; part_of = part;
    lit = light_camera * vec4(p, 1);
    gl_Position = camera * vec4(p, 1);
}
