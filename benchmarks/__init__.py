"""Commands that measure this repository; every number that is quoted comes from one of them."""
