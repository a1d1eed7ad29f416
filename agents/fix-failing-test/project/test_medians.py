import unittest

from medians import median, spread


class Medians(unittest.TestCase):
    def test_of_an_odd_count(self):
        self.assertEqual(median([9, 1, 5]), 5)

    def test_of_an_even_count(self):
        self.assertEqual(median([4, 1, 3, 2]), 2.5)

    def test_of_two(self):
        self.assertEqual(median([1, 2]), 1.5)

    def test_of_nothing(self):
        with self.assertRaises(ValueError):
            median([])

    def test_spread(self):
        self.assertEqual(spread([3, 9, 4]), 6)


if __name__ == "__main__":
    unittest.main()
