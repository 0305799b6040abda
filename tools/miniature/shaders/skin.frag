// Everything that is not hair: skin with brows and beard painted on it, eyes, teeth, tongue, lashes and clothes.
in vec3 on_face;
in vec2 texel;
flat in float part_of;

uniform sampler2D lip_mask, lid_mask, ear_mask, mouth_mask;
uniform vec3 skin, lips, brow_colour, hair_colour, iris, cloth, stripe;
uniform float lashes, lip_strength, lid_shade, iris_radius;
uniform float mottle, redness, freckles, wrinkles, bags, gloss, bump;
uniform float beard, moustache, roots;
uniform vec4 moles[4];
uniform vec4 brow, brow_ends;   // height, arch, thickness, density; inner, outer, tilt, asymmetry
uniform vec2 gaze;
uniform float mouth_open;

vec3 with_brows(vec3 base, vec3 q, inout float shine) {
    float ax = abs(q.x), side = sign(q.x), t = clamp((ax - brow_ends.x) / (brow_ends.y - brow_ends.x), 0., 1.);
    float centre = brow.x + brow.y * (1. - pow(abs(t - .62) / .62, 2.)) + brow_ends.z * (t - .5) + brow_ends.w * side * .05 - .08 * smoothstep(.75, 1., t);
    float half_height = brow.z * mix(1., .35, smoothstep(.35, 1., t)) * smoothstep(-.02, .10, t + .02);
    float off = abs(q.y - centre) + .025 * (noise(vec3(q.x * 26. + q.y * 18. * side, q.y * 14., 1.)) - .5);
    float there = smoothstep(half_height * 1.1, half_height * .4, off)
                * smoothstep(brow_ends.x - .04, brow_ends.x + .08, ax) * smoothstep(brow_ends.y + .05, brow_ends.y - .05, ax);
    there = clamp(there * (.75 + .5 * noise(vec3(q.x * 45. + q.y * 40. * side, q.y * 20., 3.))) * brow.w, 0., .92);
    shine *= 1. - there;
    return mix(base, brow_colour, there);
}

vec3 with_beard(vec3 base, vec3 q, float lip) {
    float ax = abs(q.x), cheek = .60 * smoothstep(1.05, .45, ax);
    float jaw = smoothstep(-.72 - cheek, -1.02 - cheek, q.y) * smoothstep(-2.25, -1.8, q.y) * smoothstep(-1.25, -.95, q.z);
    float upper_lip = smoothstep(.55, .38, ax) * smoothstep(-.76, -.86, q.y) * smoothstep(-1.14, -.98, q.y) * step(0., q.z);
    float hair = clamp((beard * jaw + max(moustache, beard) * upper_lip) * (1. - smoothstep(0., .4, lip)), 0., 1.);
    hair *= .70 + .55 * noise(q * vec3(34., 18., 34.));
    return mix(base, brow_colour * .9 + hair_colour * .15, clamp(hair, 0., .93));
}

vec3 skin_colour(vec3 q, float lip, float lid, float ear, inout float shine) {
    float ax = abs(q.x);
    vec3 c = skin * (1. + mottle * .8 * (clouds(q * 2.3) - .45)) * (1. + .06 * (noise(q * 45.) - .5) + .06 * (noise(q * 22.) - .5));
    float cheek = exp(-pow(length((vec2(ax, q.y) - vec2(.62, -.62)) / vec2(.40, .36)), 2.));
    float nose = exp(-pow(length((q - vec3(0, -.62, .68)) / vec3(.28, .25, .4)), 2.));
    c *= mix(vec3(1), vec3(1.10, .80, .78), redness * (cheek * .8 + nose * .6 + ear * .6));
    float spots = smoothstep(.84 - .15 * freckles, .96 - .15 * freckles, max(noise(q * 19.), noise(q * 25. + 9.))) * smoothstep(-1.2, -.3, q.y) * smoothstep(1., .3, q.y);
    c *= mix(vec3(1), vec3(.70, .55, .45), spots * .7 * step(.01, freckles));
    for (int i = 0; i < 4; i++)
        c = mix(c, skin * vec3(.42, .33, .30), .8 * smoothstep(moles[i].w, moles[i].w * .55, length(q.xy - moles[i].xy)) * step(.001, moles[i].w) * step(-.4, q.z));
    // age: folds from nose to mouth, lines on the forehead, shade under the eyes
    float fold = smoothstep(.09, 0., abs((ax - .30) - (-.62 - q.y) * .42)) * smoothstep(-.55, -.7, q.y) * smoothstep(-1.25, -1., q.y);
    c *= 1. - .18 * wrinkles * fold;
    float line = sin(q.y * 30. + 1.5 * sin(q.x * 4. + seed));
    c *= 1. - .09 * wrinkles * smoothstep(.4, 1., line) * smoothstep(.6, .75, q.y) * smoothstep(1.15, 1., q.y) * smoothstep(.75, .4, ax);
    c *= mix(vec3(1), vec3(.70, .60, .62), bags * exp(-pow(length((vec2(ax - .48, q.y + .26)) / vec2(.24, .08)), 2.)));
    c *= mix(vec3(1), vec3(.86, .80, .78), .45 * exp(-pow(length((vec2(ax - .46, q.y - .12)) / vec2(.33, .16)), 2.)));
    c *= mix(vec3(1), vec3(.68, .55, .53), lid_shade * lid);
    c = mix(c, lips, lip * lip_strength);
    shine = mix(shine, .40, lip * .7);
    return c;
}

vec3 eye_colour(vec3 q) {
    vec3 look = normalize(q - vec3(sign(q.x) * .5, 0, 0));
    float angle = acos(clamp(dot(look, normalize(vec3(gaze, 1.))), -1., 1.));
    vec3 white = vec3(.86, .83, .81) * (1. - .22 * smoothstep(.55, .95, angle));
    float rays = noise(vec3(atan(look.y, look.x) * 9., angle * 4., 2.));
    vec3 ring = iris * (.75 + .7 * rays) * (1. - .55 * smoothstep(iris_radius * .78, iris_radius, angle));
    vec3 c = mix(ring, white, smoothstep(iris_radius - .03, iris_radius + .03, angle));
    c = mix(vec3(.012), c, smoothstep(iris_radius * .40, iris_radius * .48, angle));
    return c * (.62 + .38 * smoothstep(.24, .02, q.y));    // the upper lid's shade
}

vec3 cloth_colour(vec3 q) {
    vec3 c = cloth;
    float below = neckline(q) - q.y;
    if (garment == 3 && fract(below * 2.2 + .2) < .38) c = stripe;
    if (garment == 2) c *= .82 + .18 * smoothstep(-.35, .35, sin(q.x * 40. * step(q.y, -2.75) + atan(q.x, q.z + 1.3) * 34.)) ;
    c *= .92 + .12 * noise(q * vec3(30, 8, 30));
    return c * (1. - .28 * smoothstep(.16, .10, below) * (garment == 2 ? 0. : 1.) * smoothstep(0., .03, below));
}

void main() {
    vec3 n = normalize(normal), view = normalize(vec3(0, 0, 14.) - place), q = on_face, base = skin;
    if (!gl_FrontFacing && part_of != 1.) n = -n;
    float shade = lightness(), shine = .22 * gloss, tightness = 16., soft = .35, open = 1., ax = abs(q.x);
    if (part_of < .5) {
        float lip = texture(lip_mask, texel).r, lid = texture(lid_mask, texel).r, ear = texture(ear_mask, texel).r;
        base = skin_colour(q, lip, lid, ear, shine);
        base = with_beard(with_brows(base, q, shine), q, lip);
        float rooted = scalp(q) + .10 * (noise(vec3(q.x * 14., q.y * 5., q.z * 14.)) - .5);
        base = mix(base, hair_colour * .8, roots * smoothstep(-.04, .10, rooted) * (1. - step(.3, ear)));
        float dressed = covered(q);
        base = mix(base, cloth_colour(q), dressed);
        shine *= 1. - .9 * dressed;
        soft = mix(soft, .15, dressed);
        float inside = texture(mouth_mask, texel).r * (1. - dressed);
        base = mix(base, vec3(.10, .025, .025), inside);
        shine *= 1. - inside;
        vec3 s = q * 28.;
        vec3 slope = vec3(noise(s + vec3(.3, 0, 0)) - noise(s - vec3(.3, 0, 0)), noise(s + vec3(0, .3, 0)) - noise(s - vec3(0, .3, 0)), noise(s + vec3(0, 0, .3)) - noise(s - vec3(0, 0, .3)));
        n = normalize(n - bump * slope * (1. - dressed));
        // light reaches nostrils and the throat less
        open *= 1. - .30 * exp(-pow(length((vec3(ax, q.y, q.z) - vec3(.14, -.80, .52)) / vec3(.12, .07, .16)), 2.));
        open *= 1. - .40 * smoothstep(-1.8, -2.3, q.y) * smoothstep(-3.2, -2.4, q.y) * (1. - .5 * dressed);
    } else if (part_of < 1.5) { base = eye_colour(q); shine = 1.1; tightness = 110.; soft = .2; shade = mix(1., shade, .5); }
    else if (part_of < 3.5 && mouth_open < .03) discard;     // teeth would poke through closed lips
    else if (part_of < 2.5) { base = vec3(.80, .77, .71) * .75; shine = .3; }
    else if (part_of < 3.5) base = vec3(.30, .09, .09);
    else {                    // lashes: only the dark line at their roots shows at this size
        if (length(vec3(ax - .5, q.yz)) > .24 + .11 * lashes * (q.y > 0. ? 1. : .25)) discard;
        base = brow_colour * .35;
        shine = 0.;
    }
    float facing = dot(n, key_direction);
    vec3 bleed = vec3(soft, soft * .45, soft * .35);    // light scatters under skin, red the furthest
    vec3 diffuse = key * max(vec3(0), (facing + bleed) / (1. + bleed)) * mix(.25, 1., shade)
                 + fill * (max(0., dot(n, fill_direction)) * .6 + .4) + ambient * (.72 + .28 * n.y);
    vec3 highlight = key * shine * pow(max(0., dot(n, normalize(key_direction + view))), tightness) * shade * step(0., facing)
                   + fill * shine * .4 * pow(max(0., dot(n, normalize(fill_direction + view))), tightness);
    colour = vec4(displayed(base * diffuse * open + highlight * .5), 1.);
}
