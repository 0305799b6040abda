// What is behind the person, far out of focus: one hue each, three kinds of structure.
in vec2 at;                 // -1..1
out vec4 colour;

uniform vec3 hue, tint;     // tint: colour and level of the light
uniform int place;          // 0 studio, 1 room, 2 outdoors
uniform float place_seed, from_left;

float random(float n) { return fract(sin(n * 12.9898 + place_seed * 7.233) * 43758.5453); }
float slab(float x, float left, float right, float blur) { return smoothstep(left - blur, left + blur, x) * smoothstep(right + blur, right - blur, x); }

vec3 studio() {             // an evenly lit wall that falls off from the light
    float fall = length(at - vec2(from_left * .5, .25 + .3 * random(1.)));
    return hue * mix(1.08, .70, smoothstep(.1, 1.9, fall));
}

vec3 room() {               // a wall with a window or a picture, a shelf, a corner
    vec3 c = hue * (1.0 - .16 * smoothstep(-.2, -1.2, at.y));
    float x = mix(-.8, .8, random(2.)), side = x < 0. ? 1. : -1.;
    c *= 1. - .20 * smoothstep(-.06, .06, (at.x - side * .45 - .2 * random(3.)) * side);
    float pane = slab(at.x, x - .42, x + .30, .05) * slab(at.y, .02 + .2 * random(4.), 1.3, .05);
    c = mix(c, mix(hue, vec3(1.), .42), pane * .65);
    float board = slab(at.x, -x - .35, -x + .45, .05) * slab(at.y, -.35 + .3 * random(5.), -.18 + .3 * random(5.), .035);
    return mix(c, hue * .52, board * .85);
}

vec3 outdoors() {           // light above a horizon, dark below, and blurred spots of leaves and lamps
    float horizon = -.25 + .5 * random(6.);
    vec3 c = mix(hue * .60, mix(hue, vec3(1.), .12) * 1.12, smoothstep(-.35, .35, at.y - horizon));
    for (int i = 0; i < 9; i++) {
        vec2 centre = vec2(random(10. + float(i)), random(30. + float(i))) * 2.4 - 1.2;
        float size = .12 + .24 * random(50. + float(i));
        float spot = smoothstep(size, size * .72, length(at - centre));
        c = mix(c, random(70. + float(i)) < .55 ? mix(hue, vec3(1.), .25) * 1.05 : hue * .62, spot * .38);
    }
    return c;
}

void main() {
    vec3 c = place == 0 ? studio() : place == 1 ? room() : outdoors();
    colour = vec4(pow(clamp(c * tint, 0., 1.), vec3(1. / 2.2)), 1.);
}
