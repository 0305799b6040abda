// 1 where the garment covers the skin; used to push the cloth off the skin and to colour it.
uniform int garment;        // 0 t-shirt, 1 v-neck, 2 turtleneck, 3 striped shirt

float neckline(vec3 average) {
    float ax = abs(average.x), front = smoothstep(-1.9, -1.0, average.z);
    if (garment == 1) return -2.72 - 1.25 * front * max(0., 1. - ax / .95);
    if (garment == 2) return -2.02 - .28 * front;
    return -2.70 - .42 * front * exp(-ax * ax / .5);
}

float covered(vec3 average) { return smoothstep(.02, -.02, average.y - neckline(average)); }
