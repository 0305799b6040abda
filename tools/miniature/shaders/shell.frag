// Hair that stands on the scalp: many thin shells, each with a little less hair than the one below.
in vec3 on_face;
in vec2 texel;
flat in float part_of;

uniform sampler2D ear_mask;
uniform vec3 hair_colour;
uniform float offset, curl, parting;

void main() {
    vec3 q = on_face, n = normalize(normal), view = normalize(vec3(0, 0, 14.) - place);
    if (part_of > .5 || texture(ear_mask, texel).r > .25) discard;
    float ragged = .12 * (noise(vec3(q.x * 12., q.y * 3., q.z * 12.)) - .5);
    if (scalp(q) + ragged < .02 + .06 * offset) discard;
    vec3 from_part = q - vec3(parting * .5, 1.5, -1.);
    vec3 strand = mix(vec3(atan(from_part.x, from_part.z) * 9., length(from_part.xz) * 1.2, q.y * 1.2), q * 6.5, curl);
    float body = noise(strand * 2.2) * .6 + .4 * noise(strand * 6.);
    if (body < .08 + .58 * offset * offset) discard;
    vec3 along = cross(n, cross(vec3(0, -1, .15) + .4 * vec3(from_part.x, 0, from_part.z), n)) + 1e-4;
    along = normalize(mix(normalize(along), n, .25));
    float shade = lightness(), to_key = dot(along, key_direction), to_half = dot(along, normalize(key_direction + view));
    float diffuse = sqrt(max(0., 1. - to_key * to_key)) * max(0., dot(n, key_direction) * .6 + .4);
    float streak = pow(sqrt(max(0., 1. - to_half * to_half)), 50.) * (1. - curl * .8);
    vec3 base = hair_colour * (.55 + .8 * body) * (.55 + .55 * offset);
    vec3 c = base * (key * diffuse * mix(.35, 1., shade) * .9 + fill * .5 * (max(0., dot(n, fill_direction)) * .5 + .5) + ambient * (.65 + .35 * n.y))
           + (hair_colour * .5 + .03) * key * streak * .30 * shade * (.3 + body) * max(0., dot(n, key_direction));
    colour = vec4(displayed(c), 1.);
}
