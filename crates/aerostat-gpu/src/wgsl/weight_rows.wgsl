// Rows of a tile of weights: pair `i` of the list says which row goes to which row of `y`. The list has `rows` pairs from
// `first_row` on.

@group(0) @binding(3) var<storage, read> list: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    if id.x >= p.k {
        return;
    }
    for (var i = id.y; i < p.rows; i += groups.y) {
        let row = list[p.first_row + 2u * i];
        let to = list[p.first_row + 2u * i + 1u];
        y[p.y + to * p.y_stride + id.x] = weight(row, id.x);
    }
}
