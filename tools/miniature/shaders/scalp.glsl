// Where hair grows: positive on the scalp. `average` is the place on the average head, so hairlines fit every head.
uniform vec4 hairline;      // height, temple recession, sideburn, widow's peak
uniform float hair_asymmetry;

float scalp(vec3 average) {
    float z = average.z, ax = abs(average.x);
    float top = hairline.x - hairline.w * .10 * exp(-ax * ax * 60.) + hairline.y * smoothstep(.25, .75, ax)
              - .15 * smoothstep(.6, 1.1, ax) + hair_asymmetry * average.x * .05;
    float side = mix(top, .55 + hairline.y * .5, smoothstep(.05, -.45, z));
    side = mix(side, hairline.z, smoothstep(-.62, -.85, z));
    side = mix(side, .35, smoothstep(-1.15, -1.3, z));
    side = mix(side, -1., smoothstep(-1.75, -1.95, z));
    return average.y - side;
}
