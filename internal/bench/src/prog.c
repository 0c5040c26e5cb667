/* The program of the set ends with 0 if it and its three libraries are of one
   release, and with 3 if they are mixed. */
int audio_version(void), media_version(void), video_version(void);

int main(void)
{
	return audio_version() == VERSION && media_version() == VERSION
	       && video_version() == VERSION ? 0 : 3;
}
