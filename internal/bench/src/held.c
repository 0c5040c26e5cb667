/* held is a library of which there are many. */
const char *const held_names[] = {"one", "two", HELD};
int held_value = 7;
int held(int i) { return held_value + held_names[i % 3][0]; }
