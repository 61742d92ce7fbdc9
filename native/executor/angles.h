// Rope angles: cosine and sine in binary64 from IEEE operations alone (docs/numerics.md section 5).
#pragma once

namespace bw {

// Writes `half` cosines and sines of position * inv_freq[i], times `factor`, rounded to float.
void rope_angles(int position, const double* inv_freq, int half, double factor, float* cosine,
                 float* sine);

}  // namespace bw
