// Shared by every surface: noise, light and shadow. Colours are light (linear) until `displayed`.
in vec3 place;      // position in face units, after pose
in vec3 normal;
in vec4 lit;        // position as the main light sees it
out vec4 colour;

uniform sampler2D shadow_map;
uniform vec3 key_direction, key, fill_direction, fill, ambient;
uniform float seed;

float hash(vec3 p) {
    p = fract(p * vec3(.1031, .1030, .0973) + seed * .00137);
    p += dot(p, p.yzx + 33.33);
    return fract((p.x + p.y) * p.z);
}

float noise(vec3 p) {
    vec3 i = floor(p), f = fract(p);
    f = f * f * (3. - 2. * f);
    return mix(mix(mix(hash(i), hash(i + vec3(1, 0, 0)), f.x), mix(hash(i + vec3(0, 1, 0)), hash(i + vec3(1, 1, 0)), f.x), f.y),
               mix(mix(hash(i + vec3(0, 0, 1)), hash(i + vec3(1, 0, 1)), f.x), mix(hash(i + vec3(0, 1, 1)), hash(i + vec3(1, 1, 1)), f.x), f.y), f.z);
}

float clouds(vec3 p) { return .5 * noise(p) + .25 * noise(p * 2.1 + 7.) + .125 * noise(p * 4.3 + 3.) + .0625 * noise(p * 8.7); }

// 1 in the main light, 0 in shadow; nine samples make the edge soft
float lightness() {
    vec3 s = lit.xyz * .5 + .5;
    float sum = 0.;
    for (int i = -1; i <= 1; i++) for (int j = -1; j <= 1; j++)
        sum += s.z - .007 > texture(shadow_map, s.xy + vec2(i, j) * 1.8 / 512.).r ? 0. : 1.;
    return sum / 9.;
}

vec3 displayed(vec3 light) { return pow(clamp(light / (1. + .22 * light), 0., 1.), vec3(1. / 2.2)); }
