// Hair that hangs: a solid layer with loose strands above it, ragged only at tips and edges.
in vec3 strand_direction;
in vec2 strand;

uniform vec3 hair_colour;
uniform float layer;        // 0 the solid one, up to 1
uniform float loose;        // 1: edges fray (a mane); 0: they do not (a fringe)

void main() {
    float fine = noise(vec3(strand.x * 260., strand.y * 3., 1.)), broad = noise(vec3(strand.x * 60., strand.y * 2., 5.));
    float body = .55 * fine + .45 * broad;
    if (body < .62 * layer) discard;
    float tip = .05 + .10 * noise(vec3(strand.x * 70., 0., 9.)) * (.5 + .5 * fine);
    if (strand.y > 1. - tip * (.6 + .8 * layer)) discard;
    float edge = min(strand.x, 1. - strand.x);
    if (edge < loose * (.004 + .010 * layer + .010 * noise(vec3(strand.y * 9., 3., 2.)))) discard;
    vec3 n = normalize(normal), along = normalize(strand_direction), view = normalize(vec3(0, 0, 14.) - place);
    float inside = dot(n, view) < 0. ? 1. : 0.;
    if (inside > .5) n = -n;
    float shade = lightness(), to_key = dot(along, key_direction), to_half = dot(along, normalize(key_direction + view));
    float diffuse = sqrt(max(0., 1. - to_key * to_key)) * max(0., dot(n, key_direction) * .65 + .35);
    float streak = pow(sqrt(max(0., 1. - to_half * to_half)), 40.);
    vec3 base = hair_colour * (.50 + .85 * body) * (.80 + .25 * layer) * (1. - .55 * inside);
    vec3 c = base * (key * diffuse * mix(.35, 1., shade) * .95 + fill * .5 * (max(0., dot(n, fill_direction)) * .5 + .5) + ambient * (.65 + .35 * n.y))
           + (hair_colour * .6 + .02) * key * streak * .30 * shade * (1. - inside) * (.3 + body) * max(0., dot(n, key_direction));
    colour = vec4(displayed(c), 1.);
}
